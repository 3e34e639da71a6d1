create index {concurrently} {index} on {only} {table} using gin (({words}))
