-- The columns of a table as a person sees them, with the average length of some values.
select a.attname as name, format_type(a.atttypid, a.atttypmod) as type,
       coalesce(a.attnum = any (i.indkey::int2[]), false) as key, coalesce(l.length, 0)::float8 as length
from pg_attribute a
left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
left join (
  select e.key, avg(length(e.value)) as length
  from (select to_jsonb(s) as columns from {source} s limit 200) as t, jsonb_each_text(t.columns) as e
  group by e.key) as l on l.key = a.attname
where a.attrelid = %(source)s and a.attnum > 0 and not a.attisdropped
order by a.attnum
