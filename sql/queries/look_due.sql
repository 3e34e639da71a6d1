(select true from {table} where available_at <= now() and lease is null and not dead order by available_at limit 1) is not null
