-- What the server says of itself to whoever asks what is wrong.
select current_setting('server_version_num')::integer as version, pg_is_in_recovery() as in_recovery,
       current_user::text as role, current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean as autovacuum,
       (select extversion from pg_extension where extname = 'vector') as vector,
       (select default_version from pg_available_extensions where name = 'vector') as vector_available,
       current_setting('max_connections')::integer as max_connections,
       (select count(*) from pg_stat_activity where backend_type = 'client backend') as connections,
       (select count(*) from pg_stat_activity
        where application_name = 'vectorizer' and datname = current_database() and pid <> pg_backend_pid()) as ours,
       coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls
