create function public.uuid_timestamp(uuid uuid) returns timestamptz
language plpgsql immutable parallel safe strict as $$
declare
  hex text := replace(uuid::text, '-', '');
begin
  case substr(hex, 13, 1)
  when '1' then -- 100 ns since 1582-10-15, in 60 bits
    return to_timestamp(
      ((('x' || substr(hex, 14, 3) || substr(hex, 9, 4) || substr(hex, 1, 8))::bit(60)::bigint - 122192928000000000)
       / 10) / 1000000::double precision);
  when '7' then -- milliseconds since 1970, in 48 bits
    return to_timestamp(('x' || substr(hex, 1, 12))::bit(48)::bigint / 1000::double precision);
  else
    raise exception 'UUID version is neither 1 nor 7: %', uuid using errcode = 'invalid_parameter_value';
  end case;
end $$
