"""Where the root key of an installation is: in a file, in OpenBao's or Vault's transit engine, in AWS KMS.

root_key       what all of them do
configuration  the YAML file that names them
source         opens them by name
file, transit, aws_kms
"""
