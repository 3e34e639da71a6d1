select v.id, v.name, v.key, v.definition, v.log_table, v.row_table, v.paused_at, v.paused_reason,
       s.relname as source_name, sn.nspname as source_schema,
       d.relname as destination_name, dn.nspname as destination_schema,
       t.relname as storage_name, tn.nspname as storage_schema,
       (select en.nspname from pg_extension e join pg_namespace en on en.oid = e.extnamespace
        where e.extname = 'vector') as vector_schema
from {schema}.vectorizer v
left join pg_class s on s.oid = v.source left join pg_namespace sn on sn.oid = s.relnamespace
left join pg_class d on d.oid = v.destination left join pg_namespace dn on dn.oid = d.relnamespace
left join pg_class t on t.oid = v.storage left join pg_namespace tn on tn.oid = t.relnamespace
where v.name = %(name)s and v.uninstalled_at is null
