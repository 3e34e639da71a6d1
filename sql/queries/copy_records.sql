copy {table} (id, {time} metadata, contents, embedding) from stdin (format binary)
