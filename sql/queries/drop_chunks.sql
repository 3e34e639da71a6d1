select {extension}.drop_chunks({table}, older_than => {cutoff}::timestamptz)::text
