-- Cheaper capture for partitioned tables. A row trigger that inserts a key costs more than the row itself:
-- INSERT into a partitioned table 2.6 times the bare table, where a statement trigger costs 1.7.

-- Give parts of a partitioned source statement triggers, and switch off the row triggers that they have from
-- the source. A part that is attached later comes with its row triggers on, so that no write to it is missed
-- until upkeep brings it here; written through the source, its rows are logged twice until then.
-- An UPDATE that moves rows to another partition fires no statement trigger but its own: it says so in a
-- setting, and row triggers of their own log what moved, for the rest of the transaction.
create or replace function {schema}.capture_by_statement(v {schema}.vectorizer, parts regclass[]) returns void
language plpgsql as $$
declare
  base text := 'vectorizer_' || v.label;
  columns text := {schema}.column_layout(v.source);
  part record;
  action text;
begin
  if coalesce((v.definition ->> 'always')::boolean, false) or (select relkind <> 'p' from pg_class where oid = v.source) then
    return;
  end if;
  perform {schema}.make_part_functions(v);
  for part in
    select c.oid::regclass as name, c.relkind = 'p' as partitioned from unnest(parts) as p(oid) join pg_class c on c.oid = p.oid
    -- Transition tables have the columns of the part, in its own order.
    where c.relkind = 'p' or c.relkind = 'r' and {schema}.column_layout(c.oid) = columns
  loop
    foreach action in array array['insert', 'delete'] loop
      perform {schema}.ensure_trigger(part.name, {schema}.object_name(base, format('_%s_all', action)),
        format('after %s on %s referencing %s table as changed for each statement', action, part.name,
          case action when 'insert' then 'new' else 'old' end),
        {schema}.object_name(v.label, format('_%s_all', action)));
      if part.name = v.source then
        perform {schema}.ensure_trigger(part.name, {schema}.object_name(base, format('_%s_moved', action)),
          format('after %s on %s for each row when '
            '(pg_catalog.current_setting(''vectorizer.moving'', true) operator(pg_catalog.=) ''on'')', action, part.name),
          {schema}.object_name(v.label, '_' || action));
      elsif not part.partitioned then
        execute format('alter table %s disable trigger %I', part.name, {schema}.object_name(base, '_' || action));
      end if;
    end loop;
    if part.partitioned then
      perform {schema}.ensure_trigger(part.name, {schema}.object_name(base, '_moving'),
        format('before update on %s for each statement', part.name), {schema}.object_name(v.label, '_moving'));
    end if;
  end loop;
end $$;

create or replace function {schema}.make_part_functions(v {schema}.vectorizer) returns void
language plpgsql as $$
declare
  keys_of text[] := array(
    select format('%I.%I', {schema_name}, {schema}.object_name(v.label, '_key' || n))
    from jsonb_array_elements(v.key) with ordinality as e(k, n) order by n);
  body text := format('begin insert into %I.%I (%s) select %s from changed; return null; end', {schema_name}, v.log_table,
    (select string_agg(quote_ident(k ->> 'name'), ', ' order by n) from jsonb_array_elements(v.key) with ordinality as e(k, n)),
    {schema}.calls(keys_of, 'changed.*'));
  made record;
begin
  for made in
    select format('%I.%I', {schema_name}, {schema}.object_name(v.label, suffix)) as path, rights, text from (values
      ('_insert_all', 'security definer', body),
      ('_delete_all', 'security definer', body),
      ('_moving', '', 'begin perform pg_catalog.set_config(''vectorizer.moving'', ''on'', true); return null; end')
    ) as f(suffix, rights, text)
  loop
    execute format('create or replace function %s() returns pg_catalog.trigger language plpgsql %s as %L',
      made.path, made.rights, made.text);
    execute format('revoke all on function %s() from public', made.path);
  end loop;
end $$;

create or replace function {schema}.ensure_trigger(target regclass, name text, event text, function_name text) returns void
language plpgsql as $$
begin
  if not {schema}.has_trigger(target, name) then
    execute format('create trigger %I %s execute function %I.%I()', name, event, {schema_name}, function_name);
  end if;
end $$;

create or replace function {schema}.has_trigger(target regclass, name text) returns boolean
language sql stable as $$
  select exists (select from pg_trigger t where t.tgrelid = target and t.tgname = has_trigger.name)
$$;

-- Names and types of the columns in their order.
create or replace function {schema}.column_layout(relation regclass) returns text
language sql stable as $$
  select string_agg(format('%s %s %s', attname, atttypid, attcollation), ', ' order by attnum) from pg_attribute
  where attrelid = relation and attnum > 0 and not attisdropped
$$;
