#!/usr/bin/env perl
# The greeter in Perl.
#
#     wsbridge --port 8080 --devconsole examples/greeter.pl
#
# What to know in Perl: print into a pipe waits for a full buffer, until `$| = 1` says otherwise.

use strict;
use warnings;

$| = 1;

while (my $name = <STDIN>) {
    chomp $name;
    print "Hello, $name! You are number $..\n";    # $. is the number of the line just read
}
