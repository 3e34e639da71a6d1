select name from {schema}.vectorizer where serving and uninstalled_at is null order by name
