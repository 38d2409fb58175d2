#!/usr/bin/env perl
# The greeter in Perl.
#
#     wsbridge --port 8080 --devconsole examples/greeter.pl
#
# Perl buffers its output if stdout is a pipe; `$| = 1` disables this.

use strict;
use warnings;

$| = 1;

while (my $name = <STDIN>) {
    chomp $name;
    print "Hello, $name! You are number $..\n";    # $. is the number of the current line
}
