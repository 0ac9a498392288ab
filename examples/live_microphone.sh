#!/bin/sh
# Tokens of what a microphone hears, line by line as it hears it, until Ctrl-C.
#
#     examples/live_microphone.sh                        arecord, parec or ffmpeg, whichever is here
#     examples/live_microphone.sh --print                show the command and do nothing
#     examples/live_microphone.sh --rle --no-legend      further options go to the tokenizer
#
# MICROPHONE names another device than the default one (arecord -L, pactl list sources short,
# ffmpeg -sources alsa). A line comes 1.2 to 2 s after its sound: the spectral ear hears
# that far ahead. Where the machine is too slow, the tokenizer says on stderr how far it is behind.

rate=22050
here=$(dirname "$0")
tokenizer="${PYTHON:-python3} $here/../neural_audio_tokenizer.py --live --raw s16le:$rate:1"

if command -v arecord >/dev/null; then
    recorder="arecord -q -D ${MICROPHONE:-default} -t raw -f S16_LE -r $rate -c 1"
elif command -v parec >/dev/null; then
    recorder="parec ${MICROPHONE:+-d $MICROPHONE} --raw --format=s16le --rate=$rate --channels=1 --latency-msec=100"
elif [ "$(uname)" = Darwin ]; then
    recorder="ffmpeg -v error -f avfoundation -i :${MICROPHONE:-0} -f s16le -ar $rate -ac 1 -"
else
    recorder="ffmpeg -v error -f alsa -i ${MICROPHONE:-default} -f s16le -ar $rate -ac 1 -"
fi

if [ "$1" = --print ]; then
    shift
    echo "$recorder | $tokenizer $*"
    exit
fi
$recorder | $tokenizer "$@"
