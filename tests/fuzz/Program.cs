using System.Globalization;
using Sidecar.Fuzz;

// fuzz [--inputs N] [--seed N] [--target NAME] [--threads N]: see scripts/fuzz.sh.
var inputs = 1_000_000.0;
ulong seed = 1;
string? only = null;
var threads = 1;
var exact = false;
for (var i = 0; i + 1 < args.Length; i += 2)
{
    switch (args[i])
    {
        case "--inputs":
            inputs = double.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        case "--seed":
            seed = ulong.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        case "--target":
            only = args[i + 1];
            break;
        case "--threads":
            threads = int.Parse(args[i + 1], CultureInfo.InvariantCulture);
            break;
        case "--replay":
            seed = ulong.Parse(args[i + 1], CultureInfo.InvariantCulture);
            exact = true;
            break;
        default:
            Console.Error.WriteLine("usage: fuzz.sh [--inputs N] [--seed N] [--target NAME] [--threads N] | --target NAME --replay SEED");
            return 2;
    }
}

var kinds = FuzzKind.All.Where(kind => only is null || kind.Name == only).ToList();
if (kinds.Count == 0)
{
    Console.Error.WriteLine($"no such target: {only}; there are {string.Join(", ", FuzzKind.All.Select(kind => kind.Name))}");
    return 2;
}

var tried = 0L;
var wrong = 0;
foreach (var kind in kinds)
{
    if (kind.Name == "dns" && !DnsTarget.IsInside)
    {
        // Its answers come from a server of its own at the resolver's address, so it has a namespace of its own.
        wrong += DnsTarget.RunInside(args) == 0 ? 0 : 1;
        continue;
    }

    var report = Fuzzer.Run(kind, exact ? 1 : (long)Math.Ceiling(inputs * kind.Share), seed, exact ? 1 : threads);
    tried += report.Inputs;
    wrong += report.Findings.Count;
    Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
        $"{kind.Name,-14} {report.Inputs,12:N0} inputs in {report.Took.TotalSeconds,7:0.0} s, {Math.Max(0, report.Grown) / 1048576.0,5:0.0} MB more in use, {report.Findings.Count} wrong"));
    foreach (var (own, what) in report.Findings)
    {
        Console.WriteLine($"    {what}\n    again: scripts/fuzz.sh --target {kind.Name} --replay {own}");
    }
}

Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{tried:N0} inputs, {wrong} wrong"));
return wrong == 0 ? 0 : 1;
