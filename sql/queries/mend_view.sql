select {schema}.mend_view(%(vectorizer)s)
