select to_regprocedure('public.uuid_timestamp(uuid)') is not null
