select pg_backend_pid(), pg_is_in_recovery(), current_setting('server_version_num')::integer
