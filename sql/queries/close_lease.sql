delete from {schema}.lease where token = %(token)s
