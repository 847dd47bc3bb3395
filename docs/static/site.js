// A page that was opened from the disk may not read others, which the lines below results are from.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
