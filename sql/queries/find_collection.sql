with wanted as (
  select to_regclass(case when %(schema)s::text is null then format('%%I', %(table)s::text)
                          else format('%%I.%%I', %(schema)s::text, %(table)s::text) end) as oid
)
select n.nspname, c.relname, c.relkind::text,
       (select jsonb_object_agg(a.attname, jsonb_build_array(t.typname, a.atttypmod))
        from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
       vn.nspname, v.extversion,
       coalesce(n.nspname, %(schema)s, current_schema()),
       exists (select from pg_extension where extname = 'timescaledb'),
       (select p.prosrc from pg_proc p join pg_namespace pn on pn.oid = p.pronamespace
        where pn.nspname = 'public' and p.proname = 'uuid_timestamp' limit 1),
       exists (select from pg_extension where extname = 'vectorscale')
from wanted w
left join pg_class c on c.oid = w.oid
left join pg_namespace n on n.oid = c.relnamespace
left join pg_extension v on v.extname = 'vector'
left join pg_namespace vn on vn.oid = v.extnamespace
