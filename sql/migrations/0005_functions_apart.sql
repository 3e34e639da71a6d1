-- Tables change by these files, of which none is ever edited; functions and views stand in sql/functions
-- and are made anew after them.

alter table {schema}.migration add column functions text;
comment on column {schema}.migration.functions is 'Digest of the functions and views that were made after this migration.';
