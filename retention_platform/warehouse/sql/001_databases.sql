-- What each database holds: raw = the stream as it came, live = seconds-fresh views of it,
-- staging = dbt's views and intermediate tables, marts = what people query.

create database if not exists raw;

create database if not exists live;

create database if not exists staging;

create database if not exists marts;
