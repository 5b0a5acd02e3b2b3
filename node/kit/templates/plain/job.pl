# A job in a language of your choice: Perl without a single module, to show that the contract is folders and files.
#
# It learns one number, the mean intensity of the studies' voxels in HU: tensor "mean", shape [1], float32.
#   train      mean moves to this site's mean;           metrics: num-examples (studies), spread (HU)
#   evaluate   how far this site lies from the model;     metrics: num-examples (studies), distance (HU)
use strict;
use warnings;

$| = 1;
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
my $task = 1;

# A program that cannot go on may say why by one word out of a closed list; a text would not leave anyway.
sub give_up {
    my ($word) = @_;
    mkdir "/out/$task";
    spew("/out/$task/failure.json", "{\"exception\": \"$word\"}");
    exit 1;
}

sub slurp {
    my ($path) = @_;
    open(my $file, '<:raw', $path) or give_up('FileNotFoundError');
    local $/;
    my $content = <$file>;
    return $content;
}

sub spew {
    my ($path, $content) = @_;
    open(my $file, '>:raw', $path) or exit 1;
    print {$file} $content;
    close($file);
}

# The mean of a DICOM file's voxels in the modality's units: explicit VR little endian, 16 bits a voxel, uncompressed.
sub mean_of_file {
    my ($raw) = @_;
    give_up('InvalidDicomError') unless substr($raw, 128, 4) eq 'DICM';
    my ($at, %value) = (132);
    while ($at + 8 <= length $raw) {
        my ($group, $element, $vr, $length) = unpack('v v a2 v', substr($raw, $at, 8));
        $at += 8;
        if ($vr =~ /^(OB|OD|OF|OL|OV|OW|SQ|SV|UC|UN|UR|UT|UV)$/) {
            $length = unpack('V', substr($raw, $at, 4));
            $at += 4;
        }
        give_up('NotImplementedError') if $length == 0xFFFFFFFF;    # a sequence without a length, compressed pixels
        $value{sprintf '%04x%04x', $group, $element} = substr($raw, $at, $length);
        $at += $length;
    }
    my $signed = unpack('v', $value{'00280103'} // "\0\0");
    my @voxels = unpack($signed ? 's<*' : 'v*', $value{'7fe00010'} // give_up('KeyError'));
    my $sum = 0;
    $sum += $_ for @voxels;
    return ($value{'00281053'} // 1) * $sum / @voxels + ($value{'00281052'} // 0);
}

# The mean of every study in view, each over its files.
sub means_of_studies {
    my @means;
    for my $study (sort glob '/data/studies/*') {
        my @files = map { mean_of_file(slurp($_)) } sort glob "$study/*.dcm";
        my $sum = 0;
        $sum += $_ for @files;
        push @means, $sum / @files if @files;
    }
    return @means;
}

# safetensors: the header's length (8 bytes), a JSON header, then the bytes of the tensors.
sub read_mean {
    my ($raw) = @_;
    return unpack('f<', substr($raw, 8 + unpack('Q<', $raw), 4));
}

sub model {
    my ($mean) = @_;
    my $header = '{"mean":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}';
    return pack('Q<', length $header) . $header . pack('f<', $mean);
}

# Started as `--initial FOLDER` a job writes its untrained model there, and ends: what the hub begins with.
if (@ARGV == 2 and $ARGV[0] eq '--initial') {
    mkdir $ARGV[1];
    spew("$ARGV[1]/initial.safetensors", model(0));
    exit 0;
}

sub answer {
    my $in = "/in/tasks/$task";
    my ($kind) = slurp("$in/task.json") =~ /"kind": *"([a-z]+)"/ or give_up('KeyError');
    my $given = read_mean(slurp("$in/model.safetensors"));
    my @means = means_of_studies();
    give_up('ZeroDivisionError') unless @means;
    my ($sum, $squares) = (0, 0);
    $sum += $_ for @means;
    my $mean = $sum / @means;
    $squares += ($_ - $mean)**2 for @means;
    mkdir "/out/$task";
    spew("/out/$task/progress.jsonl", "{\"fraction\": 1.0}\n");
    my %metrics = ('num-examples' => scalar @means);
    if ($kind eq 'train') {
        spew("/out/$task/model.safetensors", model($mean));
        $metrics{spread} = sqrt($squares / @means);
    }
    else {
        $metrics{distance} = abs($mean - $given);
    }
    spew("/out/$task/metrics.json", '{' . join(', ', map { "\"$_\": $metrics{$_}" } sort keys %metrics) . '}');
    spew("/out/$task/DONE", '');
}

until ($stop or -e '/in/stop') {
    if (-d "/in/tasks/$task") {
        answer();
        $task++;
    }
    else {
        select(undef, undef, undef, 0.05);
    }
}
