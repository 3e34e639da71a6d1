-- Note why this worker cannot serve a vectorizer: another one may be able to.
update {schema}.progress p set unserved_reason = left(%(reason)s, 1000), unserved_at = clock_timestamp()
from {schema}.vectorizer v
where v.id = p.vectorizer and v.name = %(name)s and v.serving and v.uninstalled_at is null
