update {schema}.vectorizer set paused_at = now(), paused_reason = %(reason)s
where id = %(vectorizer)s and paused_at is null
