"""The exchange of a file for its edited copy: changes, drafts, the journal that takes them back, local disks and S3."""
