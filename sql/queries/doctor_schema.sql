-- Whether this role may do a worker's work in our own tables, and who keeps VACUUM from its work.
select array(
         select format('%%s on %%s', p, t) from unnest(array['lease', 'progress', 'upkeep', 'vectorizer']) as t,
           unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) as p
         where to_regclass(format('%%I.%%I', {schema_name}::text, t)) is not null
           and case when t <> 'vectorizer' then not has_table_privilege(format('%%I.%%I', {schema_name}::text, t), p)
                    -- No more of it than these columns: a worker may pause what is broken.
                    when p = 'UPDATE' then not has_column_privilege(format('%%I.%%I', {schema_name}::text, t), 'paused_at', p)
                    else p = 'SELECT' and not has_table_privilege(format('%%I.%%I', {schema_name}::text, t), p) end) as lacking,
       {schema}.horizon_warnings() as horizon,
       (select count(*) from {schema}.lease where expires_at < now() - interval '1 minute') as abandoned
