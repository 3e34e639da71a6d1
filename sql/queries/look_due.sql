exists (select from {table} where available_at <= now() and lease is null and not dead)
