-- How many blocks each log has: what is appended from now on stands in the last of them or behind it.
select c.relname, pg_relation_size(c.oid) / current_setting('block_size')::bigint
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relname = any ($1::text[]) and n.nspname = $2
