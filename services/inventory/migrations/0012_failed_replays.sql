-- A replay may fail: then it has ended, and here is why, as it was told.
alter table replays add column problem json;
