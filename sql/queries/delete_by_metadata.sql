delete from {table} where metadata @> any(%(filter)s::jsonb[])
