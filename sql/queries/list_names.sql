select name from {schema}.vectorizer where uninstalled_at is null order by name
