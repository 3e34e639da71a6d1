-- Whether this role may do a worker's work in our own tables, and who keeps VACUUM from its work.
select array(
         select format('%%s on %%s', p, t) from unnest(array['lease', 'progress', 'upkeep', 'vectorizer']) as t,
           unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as p
         where to_regclass(format('%%I.%%I', {schema_name}::text, t)) is not null
           and not has_table_privilege(format('%%I.%%I', {schema_name}::text, t), p)
           and (t <> 'vectorizer' or p in ('SELECT', 'UPDATE'))) as lacking,
       {schema}.horizon_warnings() as horizon,
       (select count(*) from {schema}.lease where expires_at < now() - interval '1 minute') as abandoned
