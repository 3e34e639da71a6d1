select extract(epoch from p.not_before - clock_timestamp())::float8, p.reason
from {schema}.vectorizer v join {schema}.provider p on p.name = {schema}.provider_of(v.definition)
where v.id = %(vectorizer)s and p.not_before > clock_timestamp()
