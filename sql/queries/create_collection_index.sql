create index if not exists {index} on {table} using gin (metadata jsonb_path_ops)
