namespace Sidecar.Agent.Observation;

/// <summary>The slope of memory over the last ten minutes, from readings that come every five seconds.</summary>
internal sealed class Slope
{
    /// <summary>Scans that it is taken over, ten minutes, and the fewest, one minute.</summary>
    private const int Most = 120;
    private const int Fewest = 12;

    private readonly Queue<(double Seconds, double Bytes)> _points = new(Most + 1);

    public void Add(TimeSpan now, long bytes)
    {
        _points.Enqueue((now.TotalSeconds, bytes));
        if (_points.Count > Most)
        {
            _points.Dequeue();
        }
    }

    /// <summary>Slope of the line of least squares through what was seen, bytes per second; null in the first minute.</summary>
    public double? PerSecond()
    {
        if (_points.Count < Fewest)
        {
            return null;
        }

        var seconds = _points.Average(point => point.Seconds);
        var bytes = _points.Average(point => point.Bytes);
        var spread = _points.Sum(point => (point.Seconds - seconds) * (point.Seconds - seconds));
        return spread > 0 ? _points.Sum(point => (point.Seconds - seconds) * (point.Bytes - bytes)) / spread : null;
    }
}
