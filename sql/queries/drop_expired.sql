select {schema}.drop_expired(%(vectorizer)s)
