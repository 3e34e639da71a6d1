select i.indisvalid
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_index i on i.indexrelid = c.oid
where n.nspname = %(schema)s and c.relname = %(index)s
