# The agent of a bash template: waits for a program, and gives its place to it.
#
# A template is frozen in the first read of the control descriptor (3), and every fork returns from that read with a
# program of its own: a line with the lengths of head and source in bytes, the head (script path and arguments, each
# with a NUL at its end), the source. The script's file is there already, so the source is of no use here.
#
# The program gets a bash of its own: $$, $RANDOM, $0 and all messages are then what `bash script.sh` has. What is warm
# is the memory that both need.

LC_ALL=C # lengths are bytes
IFS=' ' read -r -u 3 head source
program=()
while ((head > 0)); do
  IFS= read -r -d '' -u 3 argument
  program+=("$argument")
  ((head -= ${#argument} + 1))
done
printf ready >&3
exec 3>&-
unset LC_ALL
exec "$BASH" "${program[@]}"
