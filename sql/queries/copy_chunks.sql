copy {storage} (id, time, {names}, chunk, content_hash, metadata, contents, embedding) from stdin (format binary)
