-- A worker could serve this vectorizer: what others noted is over.
update {schema}.progress p set unserved_reason = null, unserved_at = null
from {schema}.vectorizer v
where v.id = p.vectorizer and v.name = %(name)s and p.unserved_reason is not null
