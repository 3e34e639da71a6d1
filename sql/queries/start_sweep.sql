update {schema}.progress set sweep_cursor = null, sweep_done_at = null where vectorizer = %(vectorizer)s
