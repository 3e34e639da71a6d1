-- Every generation of a vectorizer, the serving one first.
select v.id, v.name, v.generation, v.serving, v.takes_over, v.revision, v.definition,
       -- Names as they are now: the source's columns may have been renamed.
       (select jsonb_agg(k || jsonb_build_object('current', a.attname) order by n)
        from jsonb_array_elements(v.key) with ordinality as e(k, n)
        join pg_attribute a on a.attrelid = v.source and not a.attisdropped
          and case when v.numbered_for = v.source then a.attnum = (k ->> 'number')::int2 else a.attname = k ->> 'column' end) as key,
       (select jsonb_object_agg(e.name, a.attname) from jsonb_each_text(v.columns) as e(name, number)
        left join pg_attribute a on a.attrelid = v.source and not a.attisdropped
          and case when v.numbered_for = v.source then a.attnum = e.number::int2 else a.attname = e.name end) as columns,
       -- A restored table has other numbers: its columns are found by the names they had when it was attached.
       v.numbered_for <> v.source as restored,
       (select k ->> 'column' from jsonb_array_elements(v.key) as k where v.numbered_for <> v.source and not exists (
          select from pg_attribute a where a.attrelid = v.source and not a.attisdropped and a.attname = k ->> 'column') limit 1) as lost_key,
       v.source::oid::bigint as source_oid, {schema}.source_columns(v.source) as source_columns,
       v.log_table, v.row_table, v.parents_table,
       pg_get_viewdef(to_regclass(quote_ident({schema_name}) || '.' || quote_ident(v.joined_view))) as joined_query,
       (select relname from pg_class where oid = to_regclass(quote_ident({schema_name}) || '.' || quote_ident(v.joined_view))) as joined_view, v.paused_at, v.paused_reason,
       s.relname as source_name, sn.nspname as source_schema,
       d.relname as destination_name, dn.nspname as destination_schema,
       t.relname as storage_name, tn.nspname as storage_schema,
       (select en.nspname from pg_extension e join pg_namespace en on en.oid = e.extnamespace
        where e.extname = 'vector') as vector_schema,
       (select extversion from pg_extension where extname = 'vector') as vector_version
from {schema}.vectorizer v
left join pg_class s on s.oid = v.source left join pg_namespace sn on sn.oid = s.relnamespace
left join pg_class d on d.oid = v.destination left join pg_namespace dn on dn.oid = d.relnamespace
left join pg_class t on t.oid = v.storage left join pg_namespace tn on tn.oid = t.relnamespace
where v.name = %(name)s and v.uninstalled_at is null
order by v.serving desc, v.generation
