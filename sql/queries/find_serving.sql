select id from {schema}.vectorizer where name = %(name)s and serving and uninstalled_at is null
