select {schema}.take_tokens(%(vectorizer)s, %(tokens)s),
       extract(epoch from date_trunc('day', clock_timestamp() at time zone 'UTC') + interval '1 day'
         - clock_timestamp() at time zone 'UTC')::float8
