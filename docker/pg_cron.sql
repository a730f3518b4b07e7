-- Run once, when the data folder is made: from then on the database keeps the time by itself.
create extension if not exists pg_cron;
