-- One row for each vectorizer that has work of a kind, none when idle. Each condition is a plan of its own
-- that runs once: no join, no sort, nothing that grows.
select {kind} as kind, u.name from unnest({vectorizers}::text[], array[{conditions}]::boolean[]) as u(name, found) where u.found
