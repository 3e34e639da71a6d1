update {schema}.lease set expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
where token = %(token)s returning true
