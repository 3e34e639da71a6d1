-- Columns of other tables in templates and metadata, through a query of the user's; and the parents, tables
-- whose changes concern rows of the source.

alter table {schema}.vectorizer
  -- A view over that query, for PostgreSQL to follow renames and refuse what would break it.
  add column joined_view text,
  -- Its text when it was last taken off, for a migration; from which text of the definition it was made.
  add column joined_query text,
  add column joined_from text,
  -- Log of keys of parents that changed.
  add column parents_table text;
