-- Where the next range of keys ends, so that it holds at most so many of any table. No row: it is the last.
with cursor as materialized (
  select * from jsonb_to_record(%(cursor)s::jsonb) as c({record})
)
select {key_object}::text as key from (
  (select {s_key_as_names} from {source} s {after_s} order by {s_keys} offset %(rows)s - 1 limit 1)
  union all
  (select {r_names} from {row} r {after_r} order by {r_names} offset %(rows)s - 1 limit 1)
  {ends_of_chunks}
) as ends
order by {names} limit 1
