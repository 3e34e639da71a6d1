select n.nspname, c.relname, e.kind, nullif(e.size, -1), i.kind = 'uuid',
       case c.relkind when 'v' then null when 'm' then null else
         (select sum(greatest(p.reltuples, 0))::bigint from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid
          where t.isleaf) end
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (select t.typname as kind, a.atttypmod as size from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = c.oid and a.attname = 'embedding' and t.typname in ('vector', 'halfvec', 'bit')) e
cross join lateral (select t.typname as kind from pg_attribute a join pg_type t on t.oid = a.atttypid
  where a.attrelid = c.oid and a.attname = 'id' and t.typname in ('uuid', 'text', 'varchar')) i
where c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
  and n.nspname not in ('pg_catalog', 'information_schema', '_timescaledb_internal')
  and (%(schema)s::text is null or n.nspname = %(schema)s)
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'metadata' and a.atttypid = 'jsonb'::regtype)
  and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'contents' and a.atttypid = 'text'::regtype)
order by 1, 2
