-- What a worker could not do, it leaves to others that may be able to: it notes why, for status to tell.
alter table {schema}.progress
  add column unserved_reason text,
  add column unserved_at timestamptz;
comment on column {schema}.progress.unserved_reason is
  'Why a worker could not serve it, such as an embedder that it does not have; null since one could.';
