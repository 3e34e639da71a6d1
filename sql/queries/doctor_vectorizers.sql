-- One row a generation: what a worker with this role could not do, what is not captured, and how the
-- tables of its queue fare.
select v.name, v.generation, v.serving, v.definition -> 'embedder' as embedder, v.definition ? 'chunk_column' as embeds,
       {schema}.has_source(v) as has_source,
       case when {schema}.has_source(v) then row_security_active(v.source::oid) else false end as hidden_rows,
       array(
         select format('%%s on %%s', p, t.path)
         from (values (v.source::oid, v.source::text, '{{SELECT}}'::text[]),
                      (l.oid, v.log_table, '{{SELECT,UPDATE,DELETE}}'),
                      (j.oid, v.parents_table, '{{SELECT,UPDATE,DELETE}}'),
                      (r.oid, v.row_table, '{{SELECT,INSERT,UPDATE,DELETE}}'),
                      (v.storage::oid, v.storage::text, '{{SELECT,INSERT,UPDATE,DELETE}}')) as t(relation, path, needed),
              unnest(t.needed) as p
         where exists (select from pg_class where oid = t.relation) and not has_table_privilege(t.relation, p)) as lacking,
       case when {schema}.has_source(v) then {schema}.uncaptured(v)::text[] else '{{}}' end as uncaptured,
       array(
         select c.oid::regclass::text from pg_class c
         where c.oid in (l.oid, r.oid) and c.reloptions && array['autovacuum_enabled=false', 'autovacuum_enabled=off']) as unvacuumed,
       coalesce(s.n_dead_tup, 0) as dead_tuples, coalesce(s.n_live_tup, 0) as live_tuples,
       greatest(s.last_autovacuum, s.last_vacuum) as vacuumed_at
from {schema}.vectorizer v
left join pg_namespace n on n.nspname = {schema_name}
left join pg_class l on l.relname = v.log_table and l.relnamespace = n.oid
left join pg_class r on r.relname = v.row_table and r.relnamespace = n.oid
left join pg_class j on j.relname = v.parents_table and j.relnamespace = n.oid
left join pg_stat_all_tables s on s.relid = r.oid
where v.uninstalled_at is null
order by v.name, v.generation
